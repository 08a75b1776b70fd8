// Package awsmodel holds requests against AWS's own models of its services, as botocore ships them: the operation exists, all required
// members are there and no others, and each value has its type and is within its bounds, pattern and enumeration. moto checks little of
// this.
package awsmodel
