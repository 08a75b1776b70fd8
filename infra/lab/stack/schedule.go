package stack

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
)

// readSchedules reads the scheduled rules from moto, and their targets from the template.
func (s *Stack) readSchedules(ctx context.Context, o Options) error {
	client := eventbridge.NewFromConfig(o.AWS)
	for id, properties := range s.ofType("AWS::Events::Rule") {
		if _, scheduled := properties["ScheduleExpression"]; !scheduled {
			continue
		}
		name := s.Resources[id]
		rule, err := client.DescribeRule(ctx, &eventbridge.DescribeRuleInput{Name: &name})
		if err != nil {
			return fmt.Errorf("reading the scheduled rule %s (%s): %w", id, name, err)
		}
		targets, _ := properties["Targets"].([]any)
		for _, target := range targets {
			function, _ := LogicalID(object(target)["Arn"])
			input, _ := object(target)["Input"].(string)
			s.Schedules = append(s.Schedules, Schedule{
				RuleLogicalID: id, FunctionLogicalID: function, RuleName: name, Expression: aws.ToString(rule.ScheduleExpression), Input: input,
			})
		}
	}
	slices.SortFunc(s.Schedules, func(a, b Schedule) int { return cmp.Compare(a.RuleLogicalID, b.RuleLogicalID) })
	return nil
}
