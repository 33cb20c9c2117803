-- ERROR 42P07 relation "t_pkey" already exists (line 3, column 14)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table t_pkey (a int);
