-- ERROR 0A000 DEFERRABLE is not supported (line 3, column 30)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int unique deferrable);
