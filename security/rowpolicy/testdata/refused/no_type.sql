-- ERROR 42704 type "itneger" does not exist (line 3, column 19)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a itneger);
