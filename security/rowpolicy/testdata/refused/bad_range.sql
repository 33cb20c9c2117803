-- ERROR 22003 value out of range for type smallint (line 3, column 32)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int2 default '70000');
