-- ERROR 0A000 cannot use column reference in DEFAULT expression (line 3, column 38)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a int, b int default a);
