package facts

// Place is one region of one AWS account.
type Place struct {
	Account string
	Region  string
}

// Name returns the place as messages name it. It is not a String method: every struct that embeds a Ref would print only its
// place.
func (p Place) Name() string { return "account " + p.Account + ", region " + p.Region }

// Ref names one instance and its place.
type Ref struct {
	ID string
	Place
}
