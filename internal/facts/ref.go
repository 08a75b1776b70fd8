package facts

// Place is one region of one AWS account.
type Place struct {
	Account string
	Region  string
}

// String returns the place as messages name it.
func (p Place) String() string { return "account " + p.Account + ", region " + p.Region }

// Ref names one instance and its place.
type Ref struct {
	ID string
	Place
}
