-- ERROR 42883 operator does not exist: uuid ~~ unknown (line 3, column 31)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(id like 'x');
