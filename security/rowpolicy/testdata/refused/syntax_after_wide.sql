-- ERROR 42601 syntax error at or near "nonsense" (line 2, column 27)
/* żółć ☃ */ select 'é☃'; nonsense;
