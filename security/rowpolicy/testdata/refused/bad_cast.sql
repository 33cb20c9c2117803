-- ERROR 42846 cannot cast type uuid to integer (line 3, column 30)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(id::int = 5);
