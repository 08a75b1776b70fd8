"""Expand a SAM template into plain CloudFormation, without calling AWS.

Usage: python3 expand.py template.yaml > template.json

Needs aws-sam-translator, cfn-lint and boto3 (see infra/lab/requirements.txt).
"""

import json
import os
import sys

import boto3
from cfnlint.decode import cfn_yaml
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator


def expand(path, region, parameters=None):
    template = json.loads(json.dumps(cfn_yaml.load(path)))
    for resource in template.get("Resources", {}).values():
        if resource["Type"] == "AWS::Serverless::Function":
            # The translator refuses a local path, which `sam package` replaces.
            resource["Properties"]["CodeUri"] = "s3://artifacts/code.zip"
    session = boto3.session.Session(region_name=region)
    # An empty managed policy map is enough: known names come from the bundled one.
    return Translator({}, Parser(), boto_session=session).translate(template, parameter_values=parameters or {})


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        expanded = expand(sys.argv[1], os.environ.get("AWS_REGION", "us-east-1"))
    except InvalidDocumentException as fault:
        causes = [cause.message for cause in fault.causes] or [fault.message]
        sys.exit(f"{sys.argv[1]}: " + "; ".join(causes))
    json.dump(expanded, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
