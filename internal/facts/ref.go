package facts

// Place is one region of one AWS account.
type Place struct {
	Account string
	Region  string
}

// Name returns the place as messages name it. It is no String method, which every struct that embeds a Ref would print as.
func (p Place) Name() string { return "account " + p.Account + ", region " + p.Region }

// Ref names one instance and its place.
type Ref struct {
	ID string
	Place
}
