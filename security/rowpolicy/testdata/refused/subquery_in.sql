-- ERROR 0A000 IN, ANY or ALL (SELECT …) is not supported (line 3, column 31)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create policy p on t using(id in (select id from t));
