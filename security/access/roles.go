package access

// levels holds the built-in roles. Nobody may grant a role at or above their own level.
var levels = map[string]int{
	"super_admin": 100,
	"owner":       90,
	"admin":       80,
	"manager":     60,
	"user":        40,
	"learner":     30,
	"viewer":      20,
}

// Level returns the level of a built-in role; 0, below all of them, for any other name.
func Level(role string) int { return levels[role] }
