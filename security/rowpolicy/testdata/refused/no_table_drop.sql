-- ERROR 42P01 table "nope" does not exist (line 3, column 1)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
drop table nope;
