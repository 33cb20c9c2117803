-- ERROR 0A000 CHECK is not supported (line 3, column 23)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int check (a > 0));
