-- ERROR 42701 column "a" specified more than once (line 3, column 24)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int, a text);
