# validate.py SCHEMA FILE...: the first fault of each TOML file against a JSON Schema, by PyPI `jsonschema`: one line of
# JSON, {FILE: null | fault}. A file that is no TOML is left out.
import json
import sys
import tomllib

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
found = {}
for path in sys.argv[2:]:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        continue
    fault = next(validator.iter_errors(document), None)
    found[path] = fault and f"{fault.json_path}: {fault.message}"
print(json.dumps(found))
