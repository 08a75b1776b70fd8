// Package scenes records the metrics of three scenes in the lab, for package dashboard: the built functions run against real parts,
// and their own metrics are read from their logs. Of AWS's metrics it counts those that the lab can show: the invocations of the
// functions and the messages that are visible in the queues.
package scenes
