"""The AWS CDK application: one stack per file, one construct per capability."""
