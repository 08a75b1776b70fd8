// Package plots draws the results of the benchmarks as SVG.
package plots
