"""Secrets in the shapes of their providers, made anew: none of them was ever in use."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable
from typing import NamedTuple


class Planted(NamedTuple):
    """A text, the kind of the secret in it, and the part that must not be kept."""

    kind: str
    text: str
    secret: str


_WORD = string.ascii_letters + string.digits


def _random(chance: random.Random, length: int, of: str = _WORD) -> str:
    """Return random characters, a letter and a digit among them."""
    return "a1" + "".join(chance.choices(of, k=length - 2))


def _upper(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(string.ascii_uppercase + "234567", k=length))


def _part(chance: random.Random) -> str:
    claims = f'{{"sub":"{_random(chance, 12)}"}}'.encode()
    return base64.urlsafe_b64encode(claims).decode().rstrip("=")


def _jwt(chance: random.Random) -> str:
    return f"{_part(chance)}.{_part(chance)}.{_random(chance, 43)}"


def _private_key(chance: random.Random) -> str:
    lines = "\n".join(_random(chance, 64) for _ in range(6))
    name = chance.choice(("RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", ""))
    return f"-----BEGIN {name}PRIVATE KEY-----\n{lines}\n-----END {name}PRIVATE KEY-----"


def with_check_digit(digits: str) -> str:
    """Return a number with the check digit of cards behind it."""
    doubled = sum(sum(divmod(int(digit) * 2, 10)) for digit in digits[::-2])
    return digits + str(-(doubled + sum(map(int, digits[-2::-2]))) % 10)


def _card(chance: random.Random) -> str:
    begin, length = chance.choice((("4", 16), ("53", 16), ("2221", 16), ("37", 15), ("6011", 16)))
    number = with_check_digit(
        begin + "".join(chance.choices(string.digits, k=length - len(begin) - 1))
    )
    cuts = (4, 10) if length == 15 else (4, 8, 12)
    starts, ends = (0, *cuts), (*cuts, length)
    groups = [number[start:end] for start, end in zip(starts, ends, strict=True)]
    return chance.choice((" ", "-", "", "\u00a0")).join(groups)


def iban(chance: random.Random) -> str:
    """Return a German bank account, in groups of four."""
    account = "".join(chance.choices(string.digits, k=18))
    check = 98 - int(f"{account}131400") % 97
    text = f"DE{check:02}{account}"
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


#: How the secrets of each kind look.
SHAPES: dict[str, tuple[Callable[[random.Random], str], ...]] = {
    "anthropic_key": (lambda chance: f"sk-ant-api03-{_random(chance, 93)}-AA",),
    "openai_key": (
        lambda chance: f"sk-proj-{_random(chance, 74)}_{_random(chance, 40)}",
        lambda chance: f"sk-{_random(chance, 48)}",
    ),
    "aws_key": (
        lambda chance: f"AKIA{_upper(chance, 16)}",
        lambda chance: f"ASIA{_upper(chance, 16)}",
    ),
    "github_token": (
        lambda chance: f"ghp_{_random(chance, 36)}",
        lambda chance: f"github_pat_{_random(chance, 22)}_{_random(chance, 59)}",
    ),
    "gitlab_token": (lambda chance: f"glpat-{_random(chance, 20)}",),
    "slack_token": (
        lambda chance: f"xoxb-{chance.randrange(10**11, 10**12)}-{_random(chance, 24)}",
    ),
    "slack_webhook": (
        lambda chance: (
            f"https://hooks.slack.com/services/T{_upper(chance, 8)}/B{_upper(chance, 8)}"
            f"/{_random(chance, 24)}"
        ),
    ),
    "stripe_key": (lambda chance: f"sk_{'live'}_{_random(chance, 24)}",),
    "google_key": (lambda chance: f"AIza{_random(chance, 35)}",),
    "mem0_key": (lambda chance: f"m0-{_random(chance, 40)}",),
    "huggingface_token": (lambda chance: f"hf_{_random(chance, 34)}",),
    "npm_token": (lambda chance: f"npm_{_random(chance, 36)}",),
    "pypi_token": (lambda chance: f"pypi-AgEI{_random(chance, 150)}",),
    "sendgrid_key": (lambda chance: f"SG.{_random(chance, 22)}.{_random(chance, 43)}",),
    "openrouter_key": (lambda chance: f"sk-or-v1-{_random(chance, 64, '0123456789abcdef')}",),
    "jwt": (_jwt,),
    "private_key": (_private_key,),
    "card_number": (_card,),
}

#: Where a secret stands; `{}` is the secret.
PLACES = (
    *("{}", "My key is {}.", "({})", '"{}"', "`{}`", "key={}", "Bitte merke dir {}!", "用{}登录"),
    *("Запомни: {}", "{} is what I use\nand more", "A,{},B", "第一行\n{}\n第三行", "<{}>"),
)

#: Where a password is told by having a letter, a digit and a sign; `{}` is the password.
NEAR_A_LABEL = (
    "My password's {}",
    *(
        "I changed my password to {}",
        "password - {}",
        "Мой пароль — {}",
        "Şifrem {}.",
        "parolam {}",
    ),
    *("Ich habe mein Passwort auf {} geändert", "मेरा पासवर्ड {} है", "the wifi password {} is new"),
)

#: Passwords and keys that a label tells; `{}` is the secret.
LABELLED = {
    "password": (
        *("password: {}", "My password is {}", "PASSWORD={}", "DB_PASSWORD: '{}'", "pwd = {}"),
        *('{{"password": "{}"}}', "Passwort: {}", "Mein Passwort ist {}", "Kennwort={}"),
        *("mot de passe : {}", "contraseña: {}", "Mi contraseña es {}", "la mia password è {}"),
        *("A minha senha é {}", "senha: {}", "şifre: {}", "ŞİFRE: {}", "Мой пароль: {}"),
        *("Пароль это {}", "كلمة المرور: {}", "पासवर्ड: {}", "密码是{}。", "密码\uff1a{}"),
        *("パスワードは{}です", "パスワード\uff1a{}", "비밀번호: {}"),
        *("My password is: {}", "Mein Passwort lautet: {}", "Mon mot de passe est : {}"),
        *("Mi contraseña es: {}", "A minha senha é: {}", "La password è: {}", "Moje hasło to: {}"),
        *(
            "パスワードは: {}",
            "密码是\uff1a{}",
            "비밀번호는 {} 입니다",
            "كلمة المرور هي: {}",
            "मेरा पासवर्ड है: {}",
        ),
        *("Mijn wachtwoord is: {}", "Şifrem: {}", "Mitt lösenord är {}", "Adgangskode -> {}"),
        *("The password for the wifi is {}", "Password (wifi): {}"),
        *(
            "Das Passwort für das WLAN ist {}",
            "Mot de passe pour le wifi : {}",
            "Пароль от почты: {}",
        ),
        *("La contraseña de mi correo es {}", "A palavra-passe do meu banco é {}", "Salasana: {}"),
        *("mật khẩu là {}", "Kata sandi: {}", "รหัสผ่าน: {}", "Κωδικός πρόσβασης: {}", "סיסמה: {}"),
        *("Jelszó: {}", "Heslo je {}", "Parolă: {}", "Passord: {}", "wachtwoord van de router: {}"),
    ),
    "secret_key": (
        *("My API key is: {}", "API-Schlüssel: {}", "clé API : {}", "API-ключ: {}", "密钥是{}"),
        *("Authorization: Basic {}", "APIキーは{}です", "API 키: {}", "la clave de API es {}"),
        *("api_key={}", '"apiKey": "{}"', "API key: {}", "Authorization: Bearer {}"),
        *(
            "aws_secret_access_key = {}",
            "client_secret: {}",
            "https://example.com/?access_token={}",
        ),
    ),
    "url_password": (
        *("redis://:{}@localhost:6379/0", "postgresql://app:{}@db.example.com/app"),
        *("see https://ann:{}@example.com/x for it", "amqp://guest:{}@[::1]:5672//"),
    ),
}


def planted(count: int, seed: int = 1) -> list[Planted]:
    """Return texts with secrets of every kind: `count` of each shape in each place."""
    chance = random.Random(seed)
    found = []
    for kind, makers in SHAPES.items():
        for make in makers:
            for place in PLACES * count:
                secret = make(chance)
                found.append(Planted(kind, place.format(secret), secret))
    for kind, places in LABELLED.items():
        for place in places * count:
            secret = _random(chance, 32 if kind == "secret_key" else chance.randint(8, 24))
            found.append(Planted(kind, place.format(secret), secret))
    return found
