-- ERROR 42704 data type json has no default operator class for access method "btree" (line 3, column 24)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a json unique);
