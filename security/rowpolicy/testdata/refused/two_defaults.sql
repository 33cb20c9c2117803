-- ERROR 42601 multiple default values specified for column "a" of table "u" (line 3, column 33)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int default 1 default 2);
