-- ERROR 3F000 schema "private" does not exist (line 3, column 14)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table private.x (a int);
