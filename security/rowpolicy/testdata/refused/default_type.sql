-- ERROR 42804 column "a" is of type uuid but default expression is of type integer (line 3, column 32)
create table t (id uuid primary key, i int, s text, b bool, d date, j json, jb jsonb);
create table u (a uuid default 5);
