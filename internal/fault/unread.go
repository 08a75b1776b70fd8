package fault

// Unread is a part of an answer that could not be read, or written. The rest of the answer holds without it.
type Unread struct {
	What  string `json:"what"`
	Error string `json:"error"`
}
