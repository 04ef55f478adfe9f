"""Sixty thousand people who do not exist: the same ones every time, from many countries, in many scripts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson

COUNT = 60_000
PLANS = ("free", "free", "free", "plus", "plus", "pro")


@dataclass(frozen=True)
class Origin:
    """Where names come from; `family_first` where the family's name leads, `joint` what stands between."""

    country: str
    language: str
    given: str
    family: str
    family_first: bool = False
    joint: str = " "

    def name(self, chance: Random) -> str:
        """Somebody's name."""
        given, family = chance.choice(self.given.split()), chance.choice(self.family.split())
        return self.joint.join((family, given) if self.family_first else (given, family))


ORIGINS = (
    Origin(
        "USA", "en", "Olivia Liam Emma Noah Ava Ethan Mia Mason Zoe Jack", "Smith Johnson O'Brien Brown Lee"
    ),
    Origin(
        "GBR", "en", "Amelia Harry Isla George Poppy Oscar Freya Alfie", "Taylor Evans Clarke Wright Hughes"
    ),
    Origin("DEU", "de", "Jürgen Käthe Sören Änne Lukas Marie Jörg Björn", "Müller Weiß Schröder Groß Köhler"),
    Origin(
        "FRA", "fr", "Zoé Chloé François Hélène Loïc Anaïs Jérôme", "Lefèvre Béranger Noël D'Aubigné Dupré"
    ),
    Origin("ESP", "es", "Íñigo Lucía Ángel Sofía José Begoña Martín", "García Núñez Ibáñez Peña Muñoz"),
    Origin("BRA", "pt", "João Letícia Antônio Júlia Luís Conceição", "Gonçalves Araújo Magalhães Simões"),
    Origin("POL", "pl", "Łukasz Małgorzata Wiesław Żaneta Grażyna", "Wiśniewski Dąbrowska Wójcik Żuraw"),
    Origin("CZE", "cs", "Jiří Věra Ondřej Tereza Zdeněk Růžena", "Dvořák Černý Novák Růžička Šťastný"),
    Origin("TUR", "tr", "Çağla İbrahim Gökçe Ayşe Şükrü Işıl", "Yılmaz Çelik Şahin Öztürk Güneş"),
    Origin("ISL", "is", "Þór Guðrún Ásta Björk Sæmundur Ólöf", "Jónsdóttir Sigurðsson Þórsdóttir Ægisson"),
    Origin("UKR", "uk", "Олена Андрій Їжак Ганна Тарас Юлія", "Шевченко Коваленко Бойко Ткачук"),
    Origin("RUS", "ru", "Анна Иван Ольга Фёдор Юлия Пётр", "Иванова Кузнецов Щербаков Ёлкина"),
    Origin("BGR", "bg", "Иванка Георги Цветан Мария", "Димитров Петкова Христов"),
    Origin("GRC", "el", "Ελένη Γιώργος Αθηνά Νίκος Σοφία", "Παπαδόπουλος Οικονόμου Γεωργίου"),
    Origin("ARM", "hy", "Արամ Անահիտ Տիգրան Նարե", "Պետրոսյան Հակոբյան Սարգսյան"),
    Origin("GEO", "ka", "ნინო გიორგი თამარ ლევან", "ბერიძე კაპანაძე გელაშვილი"),
    Origin("ISR", "he", "נועה דוד יעל אורי תמר", "כהן לוי מזרחי פרץ"),
    Origin("EGY", "ar", "محمد فاطمة أحمد ليلى يوسف", "حسن إبراهيم السيد منصور"),
    Origin("IRN", "fa", "پریسا رضا زهرا کیان", "حسینی کریمی پژمان"),
    Origin("ETH", "am", "አበበ ሰላም ዳዊት ሄለን", "ከበደ ተስፋዬ ገብረ"),
    Origin("IND", "hi", "आरव प्रिया रोहन दीपिका सीता", "शर्मा वर्मा गुप्ता त्रिपाठी"),
    Origin("BGD", "bn", "রহিম সুমাইয়া আয়েশা করিম", "হোসেন আক্তার চৌধুরী"),
    Origin("LKA", "ta", "கண்ணன் மீனா அருண் லட்சுமி", "சுப்பிரமணியம் ராஜன்"),
    Origin("THA", "th", "สมชาย มาลี ณัฐพล กัญญา", "ศรีสุข ทองดี วงศ์ใหญ่"),
    Origin("VNM", "vi", "Hương Dũng Thảo Đức Quỳnh", "Nguyễn Trần Phạm Đặng", family_first=True),
    Origin("CHN", "zh", "伟 芳 秀英 建国 雨桐", "王 李 张 欧阳", family_first=True, joint=""),
    Origin("JPN", "ja", "陽菜 蓮 さくら 大翔 結衣", "佐藤 鈴木 高橋 渡辺", family_first=True, joint=" "),
    Origin("KOR", "ko", "지우 서연 민준 하은 도윤", "김 이 박 최 제갈", family_first=True, joint=""),
)


def people() -> Iterator[dict[str, Any]]:
    """Everybody, in the fields of the API's UserInput."""
    chance = Random(60_000)  # noqa: S311  # the same people every time
    for number in range(1, COUNT + 1):
        origin = ORIGINS[number % len(ORIGINS)]
        yield {
            "userId": f"demo-{number:05}",
            "name": origin.name(chance),
            "language": origin.language,
            "custom": {
                "country": origin.country,
                "plan": chance.choice(PLANS),
                "age": chance.randint(16, 96),
            },
        }


def write(file: Path) -> None:
    """Everybody as NDJSON, the form that `carillon import users` reads."""
    with file.open("wb") as lines:
        for person in people():
            lines.write(orjson.dumps(person, option=orjson.OPT_APPEND_NEWLINE))


def picked() -> list[str]:
    """The ids of a few whose names are written in different scripts."""
    wanted = ("DEU", "GRC", "EGY", "IND", "JPN")
    countries = [origin.country for origin in ORIGINS]
    return [f"demo-{len(ORIGINS) + countries.index(country):05}" for country in wanted]
