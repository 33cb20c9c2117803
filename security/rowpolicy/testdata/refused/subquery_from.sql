-- ERROR 0A000 this sub-select is not supported (line 3, column 33)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(id = (select id from t));
