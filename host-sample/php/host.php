<?php
/**
 * A host in PHP: consent, fetch, settle, send.
 *
 *   php host.php WALK.json      {"library","plugin","incoming","outgoing","to"}
 *
 * Says one line per step and reads the redirect of the consent from standard input.
 */

declare(strict_types=1);

require __DIR__ . '/OauthMail.php';

function say(string|int ...$words): void
{
    fwrite(STDOUT, implode(' ', $words) . "\n");
    fflush(STDOUT);
}

$walk = json_decode(file_get_contents($argv[1]), true, 512, JSON_THROW_ON_ERROR);
$plugin = (new OauthMail\Library($walk['library']))->plugin($walk['plugin']);
try {
    $plugin->open(['incoming' => new stdClass()]);
} catch (OauthMail\Error $error) {
    say('refused', $error->document['faults'][0]['pointer']);
}
$inbox = $plugin->open(['incoming' => $walk['incoming']]);
$outbox = $plugin->open(['outgoing' => $walk['outgoing']]);
try {
    $inbox->fetchBatch();
} catch (OauthMail\Error $error) {
    if ($error->kind() !== 'consent_required') {
        throw $error;
    }
    say('consent', $inbox->authenticate(['action' => 'start'])['authorize_url']);
    say($inbox->authenticate(['action' => 'complete', 'redirect' => trim(fgets(STDIN))])['state']);
}
$batch = $inbox->fetchBatch(['max_messages' => 100]);
$results = [];
foreach ($batch as $message) {
    $facts = $message->facts();
    $sizes = array_map(fn ($file) => strlen($message->attachment($file['part_index'])), $facts['attachments']);
    say('message', strlen($message->raw()), $facts['subject'], ...$sizes);
    $results[$message->key()] = 'imported';
}
$batch->close();
say('settled', count($inbox->settleBatch($results)));
say($outbox->sendMessage(['to' => [$walk['to']], 'subject' => 'From PHP', 'text' => "It works.\n"])['outcome']);
$inbox->close();
$outbox->close();
$plugin->close();
say('done');
