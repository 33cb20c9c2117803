-- ERROR 0A000 REFERENCES t is not supported (line 3, column 25)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a uuid, foreign key (a) references t (id));
