import pytest

from deeplab.data.azure import account_name, find_account, parse, storage_options, url_of
from deeplab.errors import ConfigError

KEY = "c2VjcmV0"
CLOUD = f"DefaultEndpointsProtocol=https;AccountName=mine;AccountKey={KEY};EndpointSuffix=core.windows.net"
LOCAL = f"AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1"


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """An environment without settings, and a way to make some: settings(ACCOUNT_KEY="…")."""
    import os

    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)

    def make(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)

    return make


def resolved(url, endpoint=None):
    address = parse(url, endpoint)
    return url_of(find_account(address, endpoint), address.path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("azure://mine/deep/a b/x#1.zip", "https://mine.blob.core.windows.net/deep/a%20b/x%231.zip"),
        ("abfs://deep@mine.dfs.core.windows.net/x.zip", "https://mine.blob.core.windows.net/deep/x.zip"),
        ("abfss://deep@mine.blob.core.windows.net/x.zip", "https://mine.blob.core.windows.net/deep/x.zip"),
        ("az://mine.blob.core.windows.net/deep/x.zip", "https://mine.blob.core.windows.net/deep/x.zip"),
        ("https://mine.blob.core.windows.net/deep/a%20b.zip", "https://mine.blob.core.windows.net/deep/a%20b.zip"),
        ("https://mine.blob.core.windows.net/deep/x?sv=1&sig=a", "https://mine.blob.core.windows.net/deep/x"),
        ("https://mine.blob.core.chinacloudapi.cn/deep/x", "https://mine.blob.core.chinacloudapi.cn/deep/x"),
    ],
)
def test_every_form_names_a_blob(given, meant):
    assert resolved(given) == meant
    assert account_name(given) == "mine"


@pytest.mark.parametrize(
    "given", ["x.zip", "/data/x.zip", "https://example.org/x.zip", "s3://bucket/x", "memory://a/b"]
)
def test_other_addresses_are_left_to_others(given):
    assert parse(given) is None


def test_an_account_can_come_from_the_environment(settings):
    with pytest.raises(ConfigError, match="names no storage account; write azure://ACCOUNT"):
        account_name("az://deep/x.zip")
    settings(ACCOUNT_NAME="mine")
    assert resolved("az://deep/x.zip") == "https://mine.blob.core.windows.net/deep/x.zip"
    settings(CONNECTION_STRING=CLOUD.replace("mine", "other"))
    assert resolved("abfs://deep/x.zip") == "https://other.blob.core.windows.net/deep/x.zip"


FORMS = (
    "azure://theirs/deep/x.zip",
    "az://deep/x.zip",
    "abfss://deep@theirs.dfs.core.windows.net/x.zip",
    "https://theirs.blob.core.windows.net/deep/x.zip",
    "http://127.0.0.1:10000/devstoreaccount1/deep/x.zip",
)


@pytest.mark.parametrize("given", FORMS)
def test_another_endpoint_serves_every_form(settings, given):
    meant = "http://127.0.0.1:10000/devstoreaccount1/deep/x.zip"
    assert resolved(given, "http://127.0.0.1:10000/devstoreaccount1/") == meant
    settings(CONNECTION_STRING=LOCAL)
    assert resolved(given) == meant
    account = find_account(parse(given))
    assert (account.name, account.key) == ("devstoreaccount1", KEY)


def test_an_accounts_credentials_are_not_for_another(settings):
    settings(CONNECTION_STRING=CLOUD)
    assert find_account(parse("azure://mine/deep/x")).key == KEY
    assert find_account(parse("azure://theirs/deep/x")).key is None
    settings(CONNECTION_STRING="", ACCOUNT_NAME="mine", ACCOUNT_KEY=KEY)
    assert find_account(parse("azure://mine/deep/x")).key == KEY
    assert find_account(parse("azure://theirs/deep/x")).key is None
    settings(ACCOUNT_NAME="")
    assert find_account(parse("azure://theirs/deep/x")).key == KEY


def test_a_signature_in_the_address_wins_and_hides(settings):
    settings(CONNECTION_STRING=CLOUD)
    address = parse("azure://mine/deep/x?sv=1&sig=hidden")
    account = find_account(address)
    assert (account.sas, account.key) == ("sv=1&sig=hidden", None)
    assert "hidden" not in f"{address}{account}" and KEY not in f"{find_account(parse('az://deep/x'))}"


def test_a_question_mark_in_a_name_is_no_query():
    assert parse("azure://mine/deep/what?.zip").path == "deep/what?.zip"


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"CONNECTION_STRING": LOCAL}, ["BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1", f"AccountKey={KEY}"]),
        ({"ACCOUNT_NAME": "mine", "ACCOUNT_KEY": KEY}, ["AccountName=mine", f"AccountKey={KEY}"]),
        ({"ACCOUNT_NAME": "mine", "SAS_TOKEN": "?sig=a"}, ["SharedAccessSignature=sig=a"]),
        ({"ACCOUNT_NAME": "mine", "ANON": "true"}, ["BlobEndpoint=https://mine.blob.core.windows.net"]),
    ],
)
def test_the_driver_is_told_all_it_must_know(settings, variables, wanted):
    settings(**variables)
    parts = storage_options("az://deep/prefix")["connection_string"].split(";")
    assert set(wanted) <= set(parts)
    assert sum("Key" in part or "Signature" in part for part in parts) == ("ANON" not in variables)


def test_without_credentials_the_driver_asks_who_is_signed_in(settings):
    options = storage_options("azure://mine/deep/prefix")
    assert (options["account_name"], options["account_host"]) == ("mine", "mine.blob.core.windows.net")
    assert hasattr(options["credential"], "get_token")
    principal = {"client_id": "i", "client_secret": "s", "tenant_id": "t"}
    settings(**{name.upper(): value for name, value in principal.items()})
    assert principal.items() <= storage_options("azure://mine/deep/prefix").items()
    settings(CONNECTION_STRING=CLOUD)
    with pytest.raises(ConfigError, match="CONNECTION_STRING is for another account than theirs"):
        storage_options("azure://theirs/deep/prefix")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CONNECTION_STRING": "secret"}, r"CONNECTION_STRING: malformed; expected NAME=VALUE"),
        ({"CONNECTION_STRING": "BlobEndpoint=secret"}, "not the address of a blob service"),
    ],
)
def test_settings_that_cannot_work(settings, variables, message):
    settings(**variables)
    with pytest.raises(ConfigError, match=message):
        storage_options("az://deep/prefix")


def test_other_addresses_have_no_options():
    with pytest.raises(ConfigError, match=r"https://host/x: not an address of blob storage; give az://") as caught:
        storage_options("https://host/x?sig=hidden")
    assert "hidden" not in str(caught.value)
