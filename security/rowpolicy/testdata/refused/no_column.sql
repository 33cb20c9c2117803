-- ERROR 42703 column "x" does not exist (line 3, column 28)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(x = 1);
