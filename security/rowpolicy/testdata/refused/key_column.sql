-- ERROR 42703 column "z" named in key does not exist (line 3, column 24)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int, unique (z));
