-- ERROR 0A000 CREATE TABLE … LIKE is not supported (line 3, column 22)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table x (like t);
