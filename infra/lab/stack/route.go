package stack

import "slices"

// QueuesFor returns the URLs of the queues that the stack's rules feed with an
// EC2 state. It reads only the states of the EC2 rules' patterns, since their
// other fields are the same for every state change.
func (s *Stack) QueuesFor(state string) []string {
	var urls []string
	for _, rule := range s.ofType("AWS::Events::Rule") {
		pattern := object(rule["EventPattern"])
		if sources, given := pattern["source"].([]any); given && !slices.Contains(sources, any("aws.ec2")) {
			continue
		}
		states, given := object(pattern["detail"])["state"].([]any)
		if given && !slices.Contains(states, any(state)) {
			continue
		}
		targets, _ := rule["Targets"].([]any)
		for _, target := range targets {
			if id, ok := LogicalID(object(target)["Arn"]); ok && s.queue(id) {
				urls = append(urls, s.Resources[id])
			}
		}
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

func (s *Stack) queue(id string) bool {
	return object(object(s.Deployed["Resources"])[id])["Type"] == "AWS::SQS::Queue"
}
