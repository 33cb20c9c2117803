-- ERROR 0A000 INSERT is not supported (line 3, column 1)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
insert into t (i) values (1);
