-- ERROR 42601 syntax error at or near "tabel" (line 2, column 8)
create tabel a (b int);
