-- ERROR 42P16 multiple primary keys for table "u" are not allowed (line 3, column 42)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int primary key, b int primary key);
