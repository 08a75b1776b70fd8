// Package dashboard draws the template's CloudWatch dashboard from recorded metrics: it reads the dashboard's body and the
// metrics of a scene, computes each widget's series as CloudWatch does, and writes one SVG for each scene. Package scenes records
// the scenes in the lab; drawing needs no lab.
//
// A widget, a statistic or an option that is not implemented here is an error, never a guess.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
package dashboard
