-- ERROR 0A000 type character is not supported (line 3, column 19)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a char(3));
