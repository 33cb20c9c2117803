-- ERROR 0A000 operator + on date is not supported (line 3, column 30)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(d + 1 = d);
