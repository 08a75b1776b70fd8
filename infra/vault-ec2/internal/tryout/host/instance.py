# An instance of the tryout: it logs in, asks for its certificate, attacks, and goes on using its identity until it ends. It needs only
# Python's standard library, which Amazon Linux has. The lines before these set SETTINGS: addresses and ca of Vault, base_path, and as
# peer another instance's id, name and address, or nothing. As user data, which runs at the first start alone, it makes itself a service.
import base64
import http.client
import ipaddress
import json
import os
import secrets
import shutil
import ssl
import subprocess
import time
import urllib.parse

STARTED = time.time()
TLS = ssl.create_default_context(cadata=SETTINGS["ca"])
LOGIN_PATIENCE = 1800  # seconds
PAUSE = os.environ.get("TRYOUT_PAUSE")  # seconds between two uses; the service has it
UNIT = """[Unit]
After=network-online.target
Wants=network-online.target
[Service]
Environment=TRYOUT_PAUSE=20
ExecStart=/usr/bin/python3 /opt/tryout/instance.py
[Install]
WantedBy=multi-user.target
"""


def call(url, method, body=None, headers=None):
    """Returns status and text. The status is 0 if there is no answer."""
    to = urllib.parse.urlsplit(url)
    if to.scheme == "https":
        connection = http.client.HTTPSConnection(to.hostname, to.port, timeout=10, context=TLS)
    else:
        connection = http.client.HTTPConnection(to.hostname, to.port, timeout=2)
    try:
        connection.request(method, to.path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as e:
        return 0, "%s: %s" % (type(e).__name__, e)
    finally:
        connection.close()


def metadata(path):
    """Returns an item of the metadata service, or an empty text if the instance has none."""
    named = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT")
    for place in [named] if named else ["http://169.254.169.254", "http://[fd00:ec2::254]"]:
        status, token = call(place + "/latest/api/token", "PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        if status != 200:
            continue
        status, text = call(place + "/latest/" + path, "GET", headers={"X-aws-ec2-metadata-token": token})
        if status in (200, 404):
            return text if status == 200 else ""
    return ""


def install():
    """Makes this file a service that runs at each start."""
    root = os.environ.get("TRYOUT_ROOT", "/")
    home, units = os.path.join(root, "opt/tryout"), os.path.join(root, "etc/systemd/system")
    os.makedirs(home, mode=0o700, exist_ok=True)
    shutil.copy(__file__, os.path.join(home, "instance.py"))
    with open(os.path.join(units, "tryout.service"), "w") as f:
        f.write(UNIT)
    subprocess.run(["systemctl", "enable", "--now", "--no-block", "tryout.service"], check=True, timeout=60)


def kept_nonce():
    """Returns the nonce of the first login. It is on the root volume, as Vault Agent's is, and ends with it."""
    file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nonce")
    if not os.path.exists(file):
        with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as f:
            f.write(secrets.token_hex(32))
    with open(file) as f:
        return f.read()


class Instance:
    def __init__(self):
        while not metadata("meta-data/instance-id"):  # it may answer a moment after the start
            time.sleep(1)
        self.id = metadata("meta-data/instance-id").strip()
        self.name = metadata("meta-data/local-hostname").strip()
        self.document = metadata("dynamic/instance-identity/document")
        self.signature = metadata("dynamic/instance-identity/signature").replace("\n", "")
        found = [metadata("meta-data/local-ipv4").strip(), metadata("meta-data/ipv6").strip()]
        self.addresses = [str(ipaddress.ip_address(a)) for a in found if a]
        self.nonce = kept_nonce()
        self.vault = SETTINGS["addresses"]["ipv4" if found[0] else "ipv6"]
        self.token = ""

    def ask(self, method, path, body=None, token=None):
        """Returns status, the answer's data or auth, and the errors as one text."""
        headers = {"X-Vault-Token": self.token if token is None else token}
        status, text = call(self.vault + "/v1/" + path, method, json.dumps(body) if body is not None else None, headers)
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = {"errors": [text]}
        return status, answer.get("auth") or answer.get("data") or {}, "; ".join(answer.get("errors") or [])[:300]

    def login(self, role=None, nonce=None, document=None):
        encoded = base64.b64encode((document or self.document).encode()).decode()
        body = {"role": role or self.id, "identity": encoded, "signature": self.signature, "nonce": nonce or self.nonce}
        return self.ask("POST", "auth/aws/login", body, token="")

    def issue(self, role=None, verb="issue", **changes):
        fields = {"common_name": self.name, "alt_names": self.name, "ip_sans": self.addresses[0]}
        fields.update(changes)
        path = "%s/pki/%s/%s" % (SETTINGS["base_path"], verb, role or self.id + "-node")
        return self.ask("POST", path, fields)

    def attacks(self):
        """Returns each attack with its kind, status and errors: Vault must refuse every one, a request by its policies (403). Those on
        another instance need one."""
        peer, base = SETTINGS["peer"], SETTINGS["base_path"]
        own_role, own_pki = "auth/aws/role/" + self.id, self.id + "-node"
        own = {"common_name": self.name}
        requests = [
            ("a wildcard", lambda: self.issue(common_name="*." + self.name, alt_names="*." + self.name)),
            ("a name below the own one", lambda: self.issue(common_name="a." + self.name, alt_names="a." + self.name)),
            ("localhost", lambda: self.issue(common_name="localhost", alt_names="localhost")),
            ("a URI", lambda: self.issue(uri_sans="spiffe://tryout/" + self.id)),
            ("an email address", lambda: self.issue(alt_names="root@" + self.name)),
            ("another end of the certificate", lambda: self.issue(not_after="2099-01-01T00:00:00Z")),
            ("a signature without a role's limits", lambda: self.issue(verb="sign-verbatim", csr="none")),
            ("the own PKI role by another issuer", lambda: self.ask("POST", base + "/pki/issuer/default/issue/" + own_pki, own)),
            ("a change of the own PKI role", lambda: self.ask("POST", base + "/pki/roles/" + own_pki, {"allow_any_name": True})),
            ("a change of the own auth role", lambda: self.ask("POST", own_role, {"token_policies": "root"})),
            ("the own auth role", lambda: self.ask("GET", own_role)),
            ("the list of auth roles", lambda: self.ask("LIST", "auth/aws/roles")),
            ("the list of certificates", lambda: self.ask("LIST", base + "/pki/certs")),
        ]
        logins = [("a second login with another nonce", lambda: self.login(nonce=secrets.token_hex(32)))]
        if peer:
            changed = self.document.replace(self.id, peer["id"])
            requests += [
                ("the certificate of another instance's name", lambda: self.issue(common_name=peer["name"], alt_names=peer["name"])),
                ("another instance's name beside the own one", lambda: self.issue(alt_names=self.name + "," + peer["name"])),
                ("another instance's address", lambda: self.issue(ip_sans=peer["address"])),
                ("another instance's address beside the own one", lambda: self.issue(ip_sans=self.addresses[0] + "," + peer["address"])),
                ("another instance's PKI role", lambda: self.issue(role=peer["id"] + "-node")),
                ("another instance's policy", lambda: self.ask("GET", "sys/policies/acl/ec2-" + peer["id"] + "-use")),
                ("another instance's results", lambda: self.ask("POST", base + "/results/" + peer["id"], {"results": "none"})),
            ]
            logins += [
                ("a login as another instance", lambda: self.login(role=peer["id"])),
                ("a login with a changed document", lambda: self.login(role=peer["id"], document=changed)),
            ]
        out = []
        for kind, attacks in (("request", requests), ("login", logins)):
            for name, attack in attacks:
                status, _, errors = attack()
                out.append({"name": name, "kind": kind, "status": status, "errors": errors})
        return out

    def results(self):
        """Yields what the instance saw, again after each use. It ends when the instance cannot log in."""
        seen = {"id": self.id, "name": self.name, "addresses": self.addresses, "tries": 0, "refusal": "", "uses": 0, "refused": 0, "failures": []}
        while True:
            seen["tries"] += 1
            status, auth, errors = self.login()
            if status == 200:
                break
            seen["refusal"] = "%d %s" % (status, errors)
            print("login %d: %s" % (seen["tries"], seen["refusal"]), flush=True)
            if time.time() > STARTED + LOGIN_PATIENCE:
                return
            time.sleep(1)
        self.token = auth["client_token"]
        seen.update(waited=round(time.time() - STARTED, 1), granted=round(time.time(), 1), accessor=auth["accessor"])
        seen.update(document=self.document, signature=self.signature, nonce=self.nonce)
        status, data, errors = self.issue()
        seen.update(certificate=data.get("certificate", ""), certificate_refusal="" if status == 200 else "%d %s" % (status, errors))
        seen["attacks"] = self.attacks()
        while True:
            yield seen
            time.sleep(float(PAUSE))
            seen["uses"] += 1
            for doing, (status, auth, errors) in (("login", self.login()), ("certificate", self.issue())):
                if status == 0:  # the network
                    print("no answer: " + errors, flush=True)
                elif status != 200:
                    seen["refused"] += 1
                    seen["failures"] = (seen["failures"] + ["%s, %s: %d %s" % (time.strftime("%H:%M:%S", time.gmtime()), doing, status, errors)])[-5:]
                elif doing == "login":
                    self.token, seen["accessor"] = auth["client_token"], auth["accessor"]


def main():
    me = Instance()
    for seen in me.results():
        status, _, errors = me.ask("POST", SETTINGS["base_path"] + "/results/" + me.id, {"results": json.dumps(seen)})
        print("results: %d %s" % (status, errors), flush=True)


main() if PAUSE else install()
