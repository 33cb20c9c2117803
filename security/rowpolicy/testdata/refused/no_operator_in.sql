-- ERROR 42883 operator does not exist: text = integer (line 3, column 30)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(s in ('a', 5));
