-- ERROR 42601 syntax error at end of input (line 3, column 1)
create table a (b int
