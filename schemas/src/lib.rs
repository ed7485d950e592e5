//! Nothing: the tests of this package hold the schemas in the repository to the code that reads and writes by them. It is a workspace of its own, as the tools that
//! the tests take would double what the tests of the main workspace have to build.
