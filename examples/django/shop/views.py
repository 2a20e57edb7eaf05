"""An order, and the message about it, in one transaction."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from pgqrs.django import enqueue
from shop.jobs import CONFIRMATIONS, Confirm
from shop.models import Order


class Declined(Exception):
    pass


def place_order(request: HttpRequest) -> JsonResponse:
    try:
        with transaction.atomic():
            order = Order.objects.create(customer=request.POST["customer"])
            enqueue(CONFIRMATIONS, Confirm(order.pk))
            if "declined" in request.POST:
                raise Declined
    except Declined:
        return JsonResponse({"error": "declined"}, status=402)
    return JsonResponse({"order": order.pk}, status=201)
