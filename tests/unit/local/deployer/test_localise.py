from foundry_local.deployer.localise import CODE_KEY, localise, used_keys


def function(handler: str, code: dict[str, object]) -> dict[str, object]:
    return {"Type": "AWS::Lambda::Function", "Properties": {"Handler": handler, "Code": code, "Timeout": 3}}


ASSET = {"S3Bucket": {"Fn::Sub": "cdk-assets-${AWS::AccountId}"}, "S3Key": "abc.zip"}


def test_code_that_is_importable_here_is_not_packaged() -> None:
    template = {"Resources": {"F": function("functions.app.handler.api", ASSET)}}
    local = localise(template, "bucket")["Resources"]["F"]["Properties"]
    assert local == {
        "Handler": "functions.app.handler.api",
        "Code": {"S3Bucket": "bucket", "S3Key": CODE_KEY},
        "Timeout": 3,
    }
    assert template["Resources"]["F"]["Properties"]["Code"] == ASSET  # type: ignore[index]


def test_other_code_is_published_as_it_is() -> None:
    template = {"Resources": {"F": function("index.handler", ASSET), "G": function("index.h", {"ZipFile": "x"})}}
    local = localise(template, "bucket")
    assert local["Resources"]["F"]["Properties"]["Code"] == ASSET
    assert local["Resources"]["G"]["Properties"]["Code"] == {"ZipFile": "x"}
    assert "abc.zip" in used_keys(local)


def test_a_new_version_of_the_code_changes_nothing() -> None:
    def template(key: str) -> dict[str, object]:
        layer = {"Type": "AWS::Lambda::LayerVersion", "Properties": {"Content": {**ASSET, "S3Key": key}}}
        staged = {"aws:asset:path": f"asset.{key}", "aws:asset:property": "Code"}
        code = {**function("functions.x.handler.api", {**ASSET, "S3Key": key}), "Metadata": staged}
        return {"Resources": {"L": layer, "F": code}}

    assert localise(template("one"), "b") == localise(template("two"), "b")
