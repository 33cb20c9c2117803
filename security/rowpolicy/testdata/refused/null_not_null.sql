-- ERROR 42601 conflicting NULL/NOT NULL declarations for column "a" of table "u" (line 3, column 17)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int null not null);
