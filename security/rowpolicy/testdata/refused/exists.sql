-- ERROR 42P07 relation "t" already exists (line 3, column 14)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table t (a int);
